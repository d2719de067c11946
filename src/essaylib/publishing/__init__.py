"""Run the chapters and make the site; the core never imports this."""
