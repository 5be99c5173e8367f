"""The systems that nybble is measured against, each imported only when it takes part."""
