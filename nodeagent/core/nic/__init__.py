"""The network as it shall be: which step of the ladder, which tree, whose packets, and Batch's ceiling."""

from nodeagent.core.nic.knobs import readings
from nodeagent.core.nic.ladder import classifier, rule_of
from nodeagent.core.nic.shape import beaten, shaped

__all__ = ["beaten", "classifier", "readings", "rule_of", "shaped"]
