"""A deployment in a few words, and the whole deployment that they make: what is left out follows or is usual."""

from wingspan.describe.build import deployment_of, template_of
from wingspan.describe.description import Description, cluster_of, model_of

__all__ = ["Description", "cluster_of", "deployment_of", "model_of", "template_of"]
