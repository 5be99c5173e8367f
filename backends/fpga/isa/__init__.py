"""An accelerator for whole models: its instructions, their compiler, simulators and a system model."""
