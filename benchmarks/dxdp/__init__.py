"""DxDP where the optimum is known, on latents of real parts, and its memory and time."""
