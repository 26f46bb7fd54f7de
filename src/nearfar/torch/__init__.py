"""What only PyTorch needs."""

from nearfar.torch.batches import BalancedBatches
from nearfar.torch.cache import backward_in_chunks
from nearfar.torch.learnable import Learnable
from nearfar.torch.proxies import Proxies
from nearfar.torch.queue import EmbeddingQueue
from nearfar.torch.ranks import Ranks

__all__ = ["BalancedBatches", "EmbeddingQueue", "Learnable", "Proxies", "Ranks", "backward_in_chunks"]
