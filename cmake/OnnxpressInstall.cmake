# Headers and a CMake package for plugins built out of tree.
include(GNUInstallDirs)
install(TARGETS onnxpress RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
