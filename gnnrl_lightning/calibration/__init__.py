"""Statistics of layer inputs and outputs, from passes over calibration examples."""
