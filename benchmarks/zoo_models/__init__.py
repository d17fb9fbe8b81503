"""Published models, and what the definitions of their layers say of each leaf."""

import os

# The models are JAX's, whatever else is installed, and nothing is worth a GPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.update(USE_TF="0", USE_TORCH="0", TF_CPP_MIN_LOG_LEVEL="3")
