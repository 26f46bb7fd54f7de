"""What only PyTorch needs."""

from nearfar.torch.cache import backward_in_chunks
from nearfar.torch.learnable import Learnable
from nearfar.torch.queue import EmbeddingQueue
from nearfar.torch.ranks import Ranks

__all__ = ["EmbeddingQueue", "Learnable", "Ranks", "backward_in_chunks"]
