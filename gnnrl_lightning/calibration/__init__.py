"""Statistics of what layers read and give, from passes over calibration images."""
