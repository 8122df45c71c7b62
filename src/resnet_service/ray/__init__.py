"""The same classifier on Ray, for what one machine is too small for; the only rooms that know Ray."""
