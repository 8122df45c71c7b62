"""Fields of bits, as the headers of AV1 and HEVC bitstreams have them."""


class Bits:
    """Reads bits, most significant first; after the end they are 0, and the decoder reports the truncation."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data)
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next ``count`` bits as an unsigned number."""
        self._left -= count
        bits = self._bits >> self._left if self._left >= 0 else self._bits << -self._left
        return bits & (1 << count) - 1

    def exp_golomb(self) -> int:
        """Return an unsigned Exp-Golomb number, as HEVC has them; AV1 calls them ``uvlc``."""
        zeros = 0
        while zeros < 32 and not self.take(1):
            zeros += 1
        return (1 << 32) - 1 if zeros == 32 else (1 << zeros) - 1 + self.take(zeros)
