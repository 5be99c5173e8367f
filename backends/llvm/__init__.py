"""The code generator wheels: upstream MLIR in worker processes, LLVM's programs as subprocesses."""
