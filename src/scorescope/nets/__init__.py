"""The architectures of the paper (appendix C.1); each file is one network and knows nothing of diffusion."""
