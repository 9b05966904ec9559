"""The demo: train a small defect detector on real photographs and watch its AUPIMO grow."""
