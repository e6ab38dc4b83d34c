"""The nouns: frozen values in kernel-neutral units (cores, bytes, seconds, ratios). Imports only itself.

`None` means not known this tick, `inf` means not limited; there is no -1. A reading that this host can
never give is named in `Pod.unsupported`: unsupported is not unknown.
"""
