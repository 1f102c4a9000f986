"""Explanations of a trained model: rollout, class relevance, gates and priors, and the faithfulness of such maps."""

from .attribution import *  # noqa: F403
from .faithfulness import *  # noqa: F403
