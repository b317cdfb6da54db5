"""GPU kernels, one file a kernel, its plain PyTorch oracle on top.  Import as ``jowa.kernels``."""
