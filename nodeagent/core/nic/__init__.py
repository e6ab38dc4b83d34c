"""The network as it shall be: which step of the ladder, which tree, whose packets, and Batch's ceiling."""

from nodeagent.core.nic.knobs import readings
from nodeagent.core.nic.ladder import classifier, rule_of
from nodeagent.core.nic.shape import beat_s, beaten, shaped

__all__ = ["beat_s", "beaten", "classifier", "readings", "rule_of", "shaped"]
