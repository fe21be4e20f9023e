"""Search methods on what people optimise without gradients."""
