"""mst-clip: the network of MST-CLIPIQA (arXiv 2606.16799) on two frozen open_clip image towers."""
