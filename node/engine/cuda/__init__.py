"""A decoder's whole step on an NVIDIA GPU: a few fused Triton kernels a layer, replayed as a graph.

Behind the same interface as eager torch, whose weights and pages it uses and which is its referee.
"""
