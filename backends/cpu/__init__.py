"""The CPU: kernels as upstream IR, object code, launch plans, worker pool, sessions."""
