"""The peers, each as its own documentation would have it; run by an interpreter that has what it needs."""
