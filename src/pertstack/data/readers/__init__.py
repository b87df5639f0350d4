"""From the files people have to a DataFile: containers, columns, controls, units."""
