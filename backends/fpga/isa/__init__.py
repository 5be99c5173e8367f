"""An accelerator for whole models: instructions, compiler, simulators and a system model."""
