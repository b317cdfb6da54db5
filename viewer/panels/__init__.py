"""The window's panels, one file each; :mod:`jowa.viewer.panels.panel` says what they have in common."""
