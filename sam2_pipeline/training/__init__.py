"""What models learn from. Begin with `synthetic.make_scene`: videos with perfect ground truth, made from a seed."""
