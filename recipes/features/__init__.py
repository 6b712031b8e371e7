"""The sparse autoencoder that ships with dlens: how it was trained, and what it leaves unexplained."""
