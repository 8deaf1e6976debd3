"""Other people's tools, one module each; what a module needs beyond energyad is imported when it is."""
