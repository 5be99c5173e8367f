"""Processing elements as circuits: hw/comb/seq IR, SystemVerilog, simulation and resources."""
