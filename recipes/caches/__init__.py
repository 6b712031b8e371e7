"""What caches of denoising cost and save on the trio: the numbers of docs/caches.md."""
