"""Fused kernels, each with its plain reference."""
