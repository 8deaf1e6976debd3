"""Categories in the MVTec layout, rendered demo images, and synthetic defects."""
