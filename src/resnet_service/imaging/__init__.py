"""From untrusted bytes to the pixels that the network takes."""
