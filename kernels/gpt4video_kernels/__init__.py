"""Fused kernels of gpt4video, each with its plain reference. Importing this package imports nothing heavy."""
