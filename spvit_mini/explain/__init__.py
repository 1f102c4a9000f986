"""What a trained model looks at: rollout, class relevance, gates and priors, and how faithful such maps are."""

from .attribution import *  # noqa: F403
from .faithfulness import *  # noqa: F403
