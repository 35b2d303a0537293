"""The panel: browse, preview and evict what is cached, inside the notebook."""
