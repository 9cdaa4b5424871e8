"""The hierarchical state graph and other views of a computational graph."""
