"""Few-step generation of small images: samplers pretrained as DDPM or EDM, fine-tuned by DxMI."""
