"""What happens at one step: its state, the program made of the operations that act, and each block's visit.

The engine calls it once a step; it receives what is read and hands it to measures and captures.
"""
