"""How well a model judges: data sets in, figures and a page out, with any engine that its manifest runs on."""
