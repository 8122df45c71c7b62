"""Parts of ``convert``: finding the network in a file, its labels and preprocessing, and writing the checkpoint."""
