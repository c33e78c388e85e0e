// For the type checker: the library itself is not checked.
declare const uPlot: any;
export default uPlot;
