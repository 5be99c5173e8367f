"""The analytic cost model: what an operation does, counted, and the roof of a machine for it."""
