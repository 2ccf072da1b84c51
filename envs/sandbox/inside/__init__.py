"""What runs on the other side: the broker, the keepers, and what they put on a child before it runs foreign code.

Standard library only, Python 3.10 and later: this package is copied into every sandbox and runs there
under the system's interpreter, without anything that is installed here. It never imports the rest of the
house, and nothing in it reads a configuration or an environment variable.
"""
