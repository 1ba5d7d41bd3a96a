"""The library. It knows no study, no params.yaml and no DVC; stages call it.

Packages, from the bottom up (a package imports only packages above it in this list):

runtime     errors, files, processes, devices, progress: nothing about images
metrics     what a number means: IoU, bootstrap intervals, agreement, CIELAB
generators  GAN families behind one contract; readers and importers of published checkpoints
data        latents, images, masks, annotations, feature and pixel stores
teachers    networks that segment images: load, label, train
extractors  linear and nonlinear semantic extractors: fit, save, predict
analysis    what extractors and features tell: controls, geometry, few shots, comparisons
editing     latents that move: sampling, semantic edits, style transfer, directions
reporting   tables, figures and pages made from results
"""
