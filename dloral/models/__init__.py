"""The networks: flow, cross-frame retrieval, UNet with two LoRAs, VAE."""
