"""How the bundled models are made from nothing, with fixed seeds: ``gpt4video train --recipe bundle|film``."""
