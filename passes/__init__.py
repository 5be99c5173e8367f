"""IR to IR: raise, choose dataflows and layouts, fuse, schedule."""
