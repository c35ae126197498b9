"""From text notebooks to executed notebooks to a static site."""
