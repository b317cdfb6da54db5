"""The viewer: session (no Qt), panels, window.  Import as ``jowa.viewer``; needs the ``viewer`` extra."""
