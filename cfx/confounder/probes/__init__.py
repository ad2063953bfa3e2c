"""What a view of the images knows: features of masks, and probes that read a variable from them."""
